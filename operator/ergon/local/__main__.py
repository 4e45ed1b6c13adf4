"""`python -m ergon.local`: the same commands as `ergon local`."""

from ergon.local.cli import main

if __name__ == "__main__":
    main()
