"""Philox-4x32-10 (Salmon et al. 2011) as TensorFlow seeds it, in 32-bit words of any framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Word = Any

ROUNDS = 10
_KEY = (0x3EC8F720, 0x02461E29)  # with which TensorFlow scrambles a seed
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply_halves(a: Word, b: Word) -> tuple[Word, Word]:
    """High and low word of a product, by halves of 16 bits."""
    a_low, a_high = a & 0xFFFF, a >> 16
    b_low, b_high = b & 0xFFFF, b >> 16
    low, middle, other = a_low * b_low, a_low * b_high, a_high * b_low
    carry = (low >> 16) + (middle & 0xFFFF) + (other & 0xFFFF)
    return a_high * b_high + (middle >> 16) + (other >> 16) + (carry >> 16), a * b


def _encrypt(
    counter: list[Word],
    key: list[Word],
    word: Callable[[int], Word],
    rounds: Callable[[Callable[[Any], Any], Any], Any],
    multiply: Callable[[Word, Word], tuple[Word, Word]],
) -> list[Word]:
    def one(state: Any) -> Any:
        c0, c1, c2, c3, k0, k1 = state
        high0, low0 = multiply(word(_MULTIPLIERS[0]), c0)
        high1, low1 = multiply(word(_MULTIPLIERS[1]), c2)
        mixed = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        return *mixed, k0 + word(_WEYL[0]), k1 + word(_WEYL[1])

    return list(rounds(one, (*counter, *key)))[:4]


def unrolled(one: Callable[[Any], Any], state: Any) -> Any:
    """Ten rounds, one after the other, of words that wrap around by themselves.

    Args:
        one: a round, a function of a state.
        state: the first.

    Returns:
        The last state.
    """
    for _ in range(ROUNDS):
        state = one(state)
    return state


def words(
    index: Word,
    seed: list[Word],
    word: Callable[[int], Word],
    rounds: Callable[[Callable[[Any], Any], Any], Any],
    multiply: Callable[[Word, Word], tuple[Word, Word]] = _multiply_halves,
) -> list[Word]:
    """Four random words for every index.

    Args:
        index: `[blocks]`, unsigned, the number of each block.
        seed: two 64-bit numbers, each low word first.
        word: an unsigned 32-bit scalar from a number.
        rounds: applies a function of a state ten times to a state, each result cut to words.
        multiply: high and low word of a product of two words.

    Returns:
        Four arrays `[blocks]`.
    """
    mixed = _encrypt(seed, [word(k) for k in _KEY], word, rounds, multiply)
    like = index ^ index
    counter = [index, like, like + mixed[2], like + mixed[3]]
    key = [like + mixed[0], like + mixed[1]]
    return _encrypt(counter, key, word, rounds, multiply)
