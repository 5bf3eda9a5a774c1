"""Who may see how much of an image: rules, identities, tokens, and the documents of a login."""
