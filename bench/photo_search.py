"""Ten descriptions over the test faces of a CelebA folder: of the best eight, the labels asked for that the annotators confirm.

By the labels of an attribute predictor, by a FLIP and by both; ``--sheets FOLDER`` leaves a picture of the best eight by both.

    .venv/bin/python bench/photo_search.py --celeba FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from harness import write_json

from facecaption_ml.attributes import AttributePredictor
from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.faces import contact_sheet
from facecaption_ml.flip import Flip
from facecaption_ml.markdown import markdown_table
from facecaption_ml.photo_flip.scoring import TOP, asked, confirmed
from facecaption_ml.search.ways import WAYS, measured_weight

DESCRIPTIONS = (
    "a bald man with a mustache",
    "a smiling woman with blond hair and glasses",
    "a man with a hat",
    "a woman without makeup",
    "a young man with a goatee",
    "an old man with gray hair and glasses",
    "a woman with bangs and earrings",
    "a man in a necktie with sideburns",
    "a bald man without a beard",
    "a woman with wavy brown hair and lipstick",
)
PLAIN_SIDE = 160  # of the faces on a sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--celeba", type=Path, required=True)
    parser.add_argument("--flip", default="bundled", help="checkpoint folder (default: bundled)")
    parser.add_argument("--predictor", default="bundled", help="attribute checkpoint (default: bundled)")
    parser.add_argument("--sheets", type=Path, help="folder for a picture of each search")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    flip, predictor = Flip.load(arguments.flip, "cpu"), AttributePredictor.load(arguments.predictor)
    data = read_celeba(arguments.celeba, predictor.input)
    rows = data.rows["test"]
    faces, truth = list(data.images.batch(rows, predictor.input)), data.labels[rows]
    found = asked(DESCRIPTIONS, predictor.predict(faces), flip.encode_texts(DESCRIPTIONS), flip.encode_images(faces))
    scores = {way: found.by(way, measured_weight(flip)) for way in WAYS}
    table, figures = [], []
    for number, (text, query) in enumerate(zip(DESCRIPTIONS, found.queries, strict=True)):
        holds = confirmed(query, truth)
        best = {way: np.argsort(-own[number], kind="stable")[:TOP] for way, own in scores.items()}
        shares = {way: float(holds[places].mean()) for way, places in best.items()}
        whole = {way: int(holds[places].all(1).sum()) for way, places in best.items()}
        everyone = int(holds.all(1).sum())
        figures.append({"text": text, "labels": str(query), "faces": everyone, "right": shares, "whole": whole})
        cells = [f"{100 * shares[way]:.0f} % ({whole[way]})" for way in WAYS]
        table.append([text, str(query), str(everyone), *cells])
        if arguments.sheets:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            shown = [faces[place] for place in best["both"].tolist()]
            captions = [f"{scores['both'][number, place]:.2f}" for place in best["both"].tolist()]
            sheet = contact_sheet(shown, captions, columns=4, cell=PLAIN_SIDE, caption_lines=None)
            (arguments.sheets / f"{number + 1:02}.jpg").write_bytes(encode_jpeg(sheet, quality=90))
    means = [f"{100 * np.mean([one['right'][way] for one in figures]):.0f} %" for way in WAYS]
    table.append(["mean", "", "", *means])
    print(markdown_table(("description", "read as", f"faces of {len(rows):,}", *WAYS), table, "llrrrr"))
    write_json(arguments.out, {"flip": flip.version, "predictor": predictor.version, "searches": figures})


if __name__ == "__main__":
    main()
