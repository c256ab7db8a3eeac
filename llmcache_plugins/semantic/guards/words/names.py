"""Words that name somebody or something else when they are capitalised, in lower case."""

from typing import Final

NAMES_TOO: Final = frozenset(
    """
    access acid ada aids alexa amazon android angular apple assembly august baker ban banks base basic bath bean
    bell bill black bolt bond brave brook brown bush cat chad chase chance china chrome cliff cloud cobra cook
    cork crane cricket crystal dale dart dash dawn dell delta dick discord docker don drake drew eclipse edge elm
    excel express faith field finder firefly flash flask flint forest fox frank front gap gem gene georgia gray
    green guinea guy helm her hill hope hunter ice iris it ivory ivy jack jade japan java job jordan joy june kit king
    lake lily line long lotus mac mail marc march mark mason matt may melody mercury messenger meta mobile nice nick
    notion oak office oracle orange outlook pages pat pearl penny perl pip pixel polish power prince python rails ram rat
    ray reading red react rest rich river rob robin rock rose ruby rust sage safari scala shell signal slack small
    smart smith snow soap solid spark spring spirit stack stone sue swift target teams tigers tinder titan trump turkey
    twitch uber unity us van victor victory visa vista wales ward west white who will windows wings wood word
    wolf wood young zoom zed
    """.split()
)
