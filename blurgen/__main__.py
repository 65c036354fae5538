"""Run the command line as ``python -m blurgen``."""

from blurgen.cli import main

if __name__ == "__main__":
    main(prog_name="blurgen")
