"""``dagster dev`` as a child of ``facecaption ui``: without its note that it is superseded, and never without its parent."""

import os
import signal
import sys
import warnings

from facecaption_ml.processes.tree import end_with_parent


def main() -> None:
    """Run ``dagster dev`` with the arguments of the command line. This process leads a group of its own."""
    # The parent has them blocked for its other children; Dagster sends them to its own processes.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGHUP])
    end_with_parent(lambda: os.killpg(os.getpgid(0), signal.SIGKILL))

    from dagster import SupersessionWarning
    from dagster._cli.dev import dev_command  # dagster has no public name for it

    warnings.filterwarnings("ignore", category=SupersessionWarning)
    dev_command.main(sys.argv[1:], prog_name="dagster dev")


if __name__ == "__main__":
    main()
