"""``python -m metavqa_cli`` is ``metavqa``."""

from metavqa_cli.cli.app import main

if __name__ == "__main__":
    main()
