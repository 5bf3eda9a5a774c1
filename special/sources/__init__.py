"""The places that masters and renditions live in, each behind the `Source` protocol."""
