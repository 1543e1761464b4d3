"""Threads that each run PyTorch on one core.

On a CPU two pictures on two cores are faster than both cores sharing every small layer of one picture, and they do not wait
for each other when the machine is busy.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def core_count() -> int:
    """How many such threads are worthwhile: PyTorch's own number of threads in the calling thread."""
    return torch.get_num_threads()


def single_core_pool(workers: int) -> ThreadPoolExecutor:
    """A pool of ``workers`` threads in which PyTorch's operators use one thread each.

    The calling thread keeps its number of threads. Where PyTorch was built without OpenMP the number of threads belongs
    to the whole process and is left alone.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="faces")
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return pool
    threads = torch.get_num_threads()
    together = threading.Barrier(workers + 1)

    def use_one_core() -> None:
        torch.get_num_threads()  # a thread takes over the process's number at its first use, so that has to come first
        torch.set_num_threads(1)
        together.wait()

    started = [pool.submit(use_one_core) for _ in range(workers)]
    together.wait()
    for future in started:
        future.result()
    # set_num_threads also moved the number that later threads start with; OpenMP's own is kept per thread.
    torch.set_num_threads(threads)
    return pool
