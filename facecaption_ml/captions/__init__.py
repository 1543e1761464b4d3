"""Template captions from a grammar, the check that a text is faithful to a face's labels, and the judge of rewrites."""

from facecaption_ml.captions.faithful.faithfulness import Faithfulness, check_faithful, find_attributes
from facecaption_ml.captions.rewrite.judgement import Judgement, judge_rewrite
from facecaption_ml.captions.template.grammar import CaptionGrammar, GrammarError
from facecaption_ml.captions.template.template import caption_seed, caption_table, face_caption, template_caption

__all__ = [
    "CaptionGrammar",
    "Faithfulness",
    "GrammarError",
    "Judgement",
    "caption_seed",
    "caption_table",
    "check_faithful",
    "face_caption",
    "find_attributes",
    "judge_rewrite",
    "template_caption",
]
