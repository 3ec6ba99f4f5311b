"""`python -m halebrain`: the command, where its script is not on the path."""

from halebrain.cli.main import main

if __name__ == "__main__":
    main()
