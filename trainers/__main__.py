"""``python -m trainers``, and with it ``torchrun -m trainers``."""

from trainers.cli import main

if __name__ == "__main__":
    main(prog_name="trainers")
