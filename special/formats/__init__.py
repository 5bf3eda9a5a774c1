"""The format rooms: from the first bytes of a master to its `Layout`. Sans-I/O, pure."""
