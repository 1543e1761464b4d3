"""Variables of MATLAB's .mat files: version 7.3, which is HDF5, through h5py; versions 4 to 7 through scipy."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.errors import FaceCaptionError

Variable = npt.NDArray[Any] | list[str]

_MOST_EXPANSION: Final = 1032  # of zlib, which MATLAB packs with
_FREE_BYTES: Final = 1 << 20
_HDF5: Final = (b"MATLAB 7.3", b"\x89HDF\r\n\x1a\n")


class MatlabError(FaceCaptionError):
    """A file is not what was expected; the message names the variable."""


def read_matlab(data: bytes, names: Sequence[str]) -> dict[str, Variable]:
    """The variables ``names`` of a .mat file's bytes, as MATLAB sees them: a cell array of texts is a list in column order.

    Raises MatlabError for bytes that are no such file, and for a variable that is absent.
    """
    try:
        variables = _hdf5(data, names) if data.startswith(_HDF5) else _before_hdf5(data, names)
    except Exception as error:  # damaged bytes make both libraries raise almost anything
        raise MatlabError(f"this is no MATLAB file ({type(error).__name__}: {error}): fetch it again") from error
    absent = [name for name in names if name not in variables]
    if absent:
        raise MatlabError(f"the variable {absent[0]} is missing: fetch the file again")
    return variables


def real_matrix(variables: Mapping[str, Variable], name: str) -> npt.NDArray[Any]:
    """The variable ``name`` [rows, columns], of whole or real numbers. Raises MatlabError for anything else."""
    value = variables[name]
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biuf":
        raise MatlabError(f"{name}: expected a matrix of numbers")
    return value


def cell_strings(variables: Mapping[str, Variable], name: str) -> list[str]:
    """The texts of the cell array ``name``. Raises MatlabError for anything else."""
    value = variables[name]
    if not isinstance(value, list):
        raise MatlabError(f"{name}: expected a cell array of texts")
    return value


def _hdf5(data: bytes, names: Sequence[str]) -> dict[str, Variable]:
    import h5py

    variables: dict[str, Variable] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        for name in names:
            if name not in file:
                continue
            stored = _own(file, name, len(data))
            if h5py.check_ref_dtype(stored.dtype) is None:
                variables[name] = stored[()].T  # columns lie first in the file
            else:
                variables[name] = [_characters(_own(file, cell, len(data))) for cell in stored[()].ravel()]
    return variables


def _own(file: Any, name: Any, length: int) -> Any:
    """The data set ``name`` (a name or a reference) of the HDF5 ``file`` of ``length`` bytes.

    HDF5 can lead to other files of the machine, and can claim any size. Raises MatlabError where one does.
    """
    import h5py

    if isinstance(name, str) and not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise MatlabError(f"{name} is a link")
    stored = file[name]
    if not isinstance(stored, h5py.Dataset):
        raise MatlabError(f"{stored.name} is no variable")
    if stored.external or stored.is_virtual:
        raise MatlabError(f"{stored.name} lies in another file")
    if stored.nbytes > _MOST_EXPANSION * length + _FREE_BYTES:
        raise MatlabError(f"{stored.name} would have {stored.nbytes} bytes")
    return stored


def _characters(cell: Any) -> str:
    """A row of characters, stored as UTF-16 codes; an empty one is stored as its shape."""
    if "MATLAB_empty" in cell.attrs:
        return ""
    return cell[()].astype("<u2").tobytes().decode("utf-16-le")


def _before_hdf5(data: bytes, names: Sequence[str]) -> dict[str, Variable]:
    from scipy.io import loadmat

    variables = loadmat(io.BytesIO(data), variable_names=list(names))
    return {
        name: _texts(variables[name]) if variables[name].dtype.kind == "O" else variables[name]
        for name in names
        if name in variables
    }


def _texts(cells: npt.NDArray[Any]) -> list[str]:
    """An empty text is an empty array there."""
    return [str(cell.item()) if cell.size else "" for cell in cells.ravel(order="F")]
