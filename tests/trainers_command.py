"""The command `trainers`, run within a test."""

from click.testing import CliRunner, Result

from trainers.cli import main


def run(*words: object) -> Result:
    """Return what the command says to these words."""
    return CliRunner().invoke(main, [str(word) for word in words])


def ok(*words: object) -> Result:
    """Return what it says; fail where it fails."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result
