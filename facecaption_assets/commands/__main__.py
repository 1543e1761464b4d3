"""``facecaption``, and ``python -m facecaption_assets.commands``: from its first line on a signal ends it with one line."""

from typing import Any

from facecaption_ml.processes.early_signals import end_on_signals


def main() -> Any:
    """Run the command line (``cli.main``)."""
    end_on_signals()
    from facecaption_ml.processes import interrupts

    return interrupts.run(_command_line)


def _command_line() -> Any:
    from facecaption_assets.commands.cli import main as command_line
    from facecaption_ml.processes.tree import end_with_parent

    end_with_parent()
    return command_line(prog_name="facecaption")


if __name__ == "__main__":
    main()
