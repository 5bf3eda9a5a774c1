"""Waiting and sharing inside one process: caches, single flight, limits, queues, deadlines."""
