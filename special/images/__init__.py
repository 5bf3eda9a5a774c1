"""What is known of an image: its master, its stored renditions, its rule."""
