"""What each number of a report means. models/cosines.py and models/measures.py compute them."""

from typing import NamedTuple

from models.stages import STAGE_WORDS


class Definition(NamedTuple):
    axes: tuple[str, ...]
    words: str


DEFINITIONS = {
    "similarity.column": Definition(
        ("block", "other_block"),
        "Eq. 2 of DeepViT: cosine of two blocks' maps over queries, same head, same token; mean "
        "over heads and tokens (Fig. 3a). It compares what a token contributes to all tokens. It "
        "is 1 for any two maps whose queries all attend alike, and high for near-uniform maps.",
    ),
    "similarity.row": Definition(
        ("block", "other_block"),
        "The same cosine over keys: it compares where a token attends to.",
    ),
    "similarity.centred": Definition(
        ("block", "other_block"),
        "The column cosine after subtracting each column's mean (Pearson's correlation), without "
        "what uniform attention adds. A constant column has no direction left and counts as 0.",
    ),
    "similar_vectors": Definition(
        ("block",),
        "Share of (head, token) pairs whose column cosine with the block before is above the "
        "threshold.",
    ),
    "opposite_vectors": Definition(
        ("block",),
        "Share of (head, token) pairs whose column cosine with the block before is below the "
        "negative of the threshold: alike except for the sign. In a mean they cancel similar ones. "
        "It is 0 where maps have no negative entries, as at the softmax stage.",
    ),
    "head_similarity": Definition(
        ("block", "head", "other_head"),
        "Column cosine between heads of one block, mean over tokens (Fig. 3c).",
    ),
    "other_heads": Definition(("block",), "Head similarity, mean over pairs of different heads."),
    "entropy": Definition(
        ("block", "head"),
        "Shannon entropy of each query's attention in nats, mean over queries: from 0 (one key) "
        "to log(tokens) (uniform). Softmax stage only.",
    ),
    "mean_entropy": Definition(("block",), "Entropy, mean over heads."),
    "attention_distance": Definition(
        ("block", "head"),
        "Attention-weighted distance between patch centres in input pixels, mean over queries. "
        "Tokens before the patches, like the class token, are left out, and the rest of each row "
        "is rescaled to sum to 1. Softmax stage only.",
    ),
    "mean_attention_distance": Definition(("block",), "Attention distance, mean over heads."),
    "feature_similarity": Definition(
        ("block",),
        "Cosine of each block's output to that of the last block, mean over tokens (Fig. 4).",
    ),
    "rank_residual": Definition(
        ("block",),
        "|X - mean of tokens| / |X| for a block's output X, in Frobenius norms: 0 if all tokens "
        "are equal.",
    ),
    "token_similarity": Definition(
        ("block",),
        "Cosine between tokens of a block's output, mean over pairs (over-smoothing).",
    ),
}

TERMS = {
    "softmax": f"The stage {STAGE_WORDS['softmax']}.",
    "reattention": f"The stage {STAGE_WORDS['reattention']}. A model without mixing has only the "
    "softmax stage.",
    "similar block": "A block whose mean column similarity to the block before it is above the "
    "threshold. Counted from block 1; block 0 has none before it.",
    "collapsed block": "A similar block whose row similarity to the block before it is above the "
    "threshold too: it attends to the same keys.",
    "block alike up to sign": "A block that is not similar although most (head, token) pairs are "
    "above the threshold or below its negative, at least 5 % of them below.",
    "near uniform": "Attention whose mean entropy is above 95 % of log(tokens). Such maps are "
    "alike by themselves.",
    "donor": "Attention reuse shares one block's map with all later ones. The donor is the last "
    "block that is not similar to the one before it; by rows, the last that has not collapsed.",
    "interval": "95 % confidence interval of a mean over images: mean ± 1.96 s / √n, assuming "
    "independent images. It says nothing about other kinds of images.",
    "mean map": "The mean of attention maps over images and heads; query down, key across: first "
    "the tokens before the patches, if there are any, then patches row by row (Fig. 6). They are "
    "not in the tables, but in report.npz as [block, query, key].",
}
