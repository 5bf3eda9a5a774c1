"""The only room that imports codecs: pyvips, OpenJPEG, libjpeg-turbo, pillow."""
