"""A bounded local disk in front of a store: blocks fetched once, however many ask."""
