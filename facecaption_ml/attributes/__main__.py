"""``python -m facecaption_ml.attributes``: from its first line on a signal ends it with one line."""

from facecaption_ml.processes.early_signals import end_on_signals


def _command_line() -> None:
    from facecaption_ml.attributes.command_line import main
    from facecaption_ml.processes import interrupts

    interrupts.advise("the same command resumes after the last whole epoch")
    main()


def _start() -> None:
    end_on_signals()
    from facecaption_ml.processes import interrupts

    interrupts.run(_command_line)


if __name__ == "__main__":
    _start()
