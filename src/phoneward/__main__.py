"""`python -m phoneward` is the command `phoneward`."""

from phoneward.apps.cli import main

if __name__ == "__main__":
    main()
