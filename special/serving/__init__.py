"""Which route answers a request, and the routes."""
