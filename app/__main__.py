"""The entry of the command `doorbuster`, and of `python -m app`."""

from app.cli.doorbuster import main

if __name__ == "__main__":
    main()
