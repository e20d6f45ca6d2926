"""`python -m litgan` is the `litgan` command."""

from litgan.cli import main

if __name__ == "__main__":
    main()
