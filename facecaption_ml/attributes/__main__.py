"""``python -m facecaption_ml.attributes``: from its first line on a signal ends it with one line."""

from facecaption_ml import interrupts


def _command_line() -> None:
    from facecaption_ml.attributes.command_line import main

    interrupts.advise("the same command resumes after the last whole epoch")
    main()


if __name__ == "__main__":
    interrupts.run(_command_line)
