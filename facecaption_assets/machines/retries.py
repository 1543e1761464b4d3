"""Which steps are tried again by themselves: those whose process or pod was lost, and those that ran out of memory.

Dagster tries a step again after any error; here every other error is final, since another try would end the same.
"""

import contextlib
import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any, Final, ParamSpec, TypeVar

import dagster as dg

from facecaption_assets.settings.deploy import DeploySettings
from facecaption_ml.errors import describe

P = ParamSpec("P")
T = TypeVar("T")

DELAY_S: Final = 10.0
"""Before the second try; twice as long before each further one."""


def retry_policy(settings: DeploySettings) -> dg.RetryPolicy | None:
    """Of every asset; None where a run's steps share its process, which has nobody left to try again when it is lost."""
    if settings.executor == "in_process" or not settings.step_retries:
        return None
    return dg.RetryPolicy(max_retries=settings.step_retries, delay=DELAY_S, backoff=dg.Backoff.EXPONENTIAL)


def training_retry_policy(settings: DeploySettings) -> dg.RetryPolicy | None:
    """Of assets that train FLIP: as ``retry_policy`` in pods, which take a lost step's training with them.

    None elsewhere: the processes of a training outlive a step that is killed, and two trainings would write one checkpoint.
    """
    return retry_policy(settings) if settings.executor == "kubernetes" else None


def retries_left(context: dg.AssetExecutionContext, settings: DeploySettings) -> bool:
    """Whether the step will be tried again if it is lost now."""
    policy = retry_policy(settings)
    return policy is not None and int(context.retry_number) < policy.max_retries


def is_transient(error: BaseException) -> bool:
    """Whether another try may go better: memory ran out here or on a GPU, or a process that the step had started was killed."""
    kind = type(error)
    return (
        isinstance(error, MemoryError | BrokenExecutor | ChildProcessError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch"))
        or (error.__cause__ is not None and is_transient(error.__cause__))
    )


def no_retry_on_user_error(
    settings: DeploySettings, policy_of: Callable[[DeploySettings], dg.RetryPolicy | None] = retry_policy
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates an asset's function: what it raises is tried again only if it was transient (``is_transient``).

    Any other error, and what the last try raises, becomes a dg.Failure with what ``describe`` says of it, and the error with
    its traceback as its cause: its line is then the first that the run and the alert show. ``policy_of``: the asset's.
    """
    policy = policy_of(settings)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @contextlib.contextmanager
        def final(args: tuple[Any, ...]) -> Iterator[None]:
            tried = int(getattr(args[0], "retry_number", 0)) if args else 0  # of the context
            try:
                yield
            except (dg.DagsterError, dg.RetryRequested):  # Dagster does not try the one again, and must the other
                raise
            except Exception as error:
                if policy is not None and tried < policy.max_retries and is_transient(error):
                    raise
                if isinstance(error, dg.Failure):
                    error.allow_retries = False
                    raise
                raise dg.Failure(description=describe(error), allow_retries=False) from error

        @functools.wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
            with final(args):
                return function(*args, **kwargs)

        @functools.wraps(function)
        def generated(*args: P.args, **kwargs: P.kwargs) -> Any:
            with final(args):
                yield from function(*args, **kwargs)  # type: ignore[misc]

        return generated if inspect.isgeneratorfunction(function) else decorated

    return decorate
