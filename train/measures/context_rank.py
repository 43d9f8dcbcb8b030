"""What rank a language needs: the spectrum of its next-token frequencies after short contexts.

W is the matrix [C, V] of the frequencies of the next token after each context of some tokens that
the text has. `W-error(d) = ||s_(d+1:)|| / ||s||` of its singular values s is the share that a
matrix of rank d misses at least (Godey et al., 2024, arXiv 2404.07647, section 5).
"""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from train.data.corpus import Corpus
from train.measures.settings import ContextRank
from train.records import InputError, Row

MEASURE = "context_rank"
_DENSE = 8192  # vocabularies up to this size have their Gram matrix decomposed whole


def measure(corpus: Corpus, settings: ContextRank) -> list[Row]:
    """A row for each rank d below the vocabulary's size: measure, rank, value, contexts.

    Raises:
      InputError: there are fewer tokens than a context and the next.
    """
    shards, left = [], settings.max_tokens
    for shard in corpus.tokens("train"):
        shards.append(np.asarray(shard[:left]))
        left -= len(shards[-1])
    matrix_CV = frequencies(np.concatenate(shards), settings.context, corpus.vocab_size)
    contexts, vocab_size = _shape(matrix_CV)
    dims = [d for d in settings.dims if d < min(contexts, vocab_size)]
    values = w_errors(matrix_CV, dims)
    return [
        {"measure": MEASURE, "rank": d, "value": value, "contexts": contexts}
        for d, value in zip(dims, values, strict=True)
    ]


def frequencies(tokens_N: np.ndarray, context: int, vocab_size: int) -> sparse.csr_array:
    """The frequencies of the next token after each context, [C, V]; each row sums to 1.

    Raises:
      InputError: there are too few tokens.
    """
    if len(tokens_N) <= context:
        raise InputError(f"context = {context}: the text has only {len(tokens_N)} tokens")
    windows = np.lib.stride_tricks.sliding_window_view(tokens_N, context + 1)
    _, which_N = np.unique(windows[:, :-1], axis=0, return_inverse=True)
    which_N = which_N.reshape(-1)
    counts_C = np.bincount(which_N)
    weights_N = 1.0 / counts_C[which_N]
    shape = (len(counts_C), vocab_size)
    return sparse.csr_array((weights_N, (which_N, windows[:, -1])), shape=shape)


def w_errors(matrix_CV: sparse.csr_array, dims: list[int]) -> list[float]:
    """W-error(d) for each d."""
    total, (_, vocab_size) = float(matrix_CV.power(2).sum()), _shape(matrix_CV)
    if vocab_size <= _DENSE:
        squares = np.linalg.eigvalsh((matrix_CV.T @ matrix_CV).toarray())[::-1]
    else:
        largest: Any = linalg.svds(matrix_CV, k=max(dims), return_singular_vectors=False)
        squares = np.sort(largest)[::-1] ** 2
    return [float(np.sqrt(max(total - squares[:d].sum(), 0.0) / total)) for d in dims]


def _shape(matrix_CV: sparse.csr_array) -> tuple[int, int]:
    shape: Any = matrix_CV.shape  # optional in SciPy's types
    return shape
