"""`python -m special` is the command `special`."""

from special.cli import main

if __name__ == "__main__":
    main()
