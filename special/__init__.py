"""An IIIF image server that serves digital libraries straight out of S3.

Importing this package does nothing but name the version: no environment is read,
no client is made, no codec is loaded.
"""

__version__ = "0.1.0"
