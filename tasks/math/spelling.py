"""One spelling for what texts write in several: digits, dashes, blanks and currencies of other scripts in ASCII."""

import re
import unicodedata

_THIN = "\u2009"
_SPELLINGS = str.maketrans(
    dict.fromkeys("\u2212\ufe63\u2010\u2011", "-")
    | dict.fromkeys("\u00a0\u2007\u2008\u200a\u202f", _THIN)
    | dict.fromkeys("\u2044\u2215", "/")
    | dict.fromkeys("\u2019\u02bc", "'")
    | dict.fromkeys("\u200b\u2060\ufeff")
    | {"\u2012": "\u2013", "\u066b": ".", "\u066c": ",", "\u2248": "="}
)
_THIN_GROUP = re.compile(rf"(?<=\d){_THIN}(?=\d{{3}}(?!\d))")
_DASH = re.compile("(\\d[ \t]*)?\u2013(?=[$\\d.])")


def plain(text: str) -> str:
    """Return a text with ASCII digits, `-` for every minus, `$` for every currency sign, thousands with commas.

    An en dash stays where it stands between two numbers, which makes it a range; directly before a number it is a
    minus. A vulgar fraction is written `1/2`; a superscript is no digit.
    """
    if text.isascii():
        return text
    text = "".join(map(_ascii, text)).translate(_SPELLINGS)
    text = _THIN_GROUP.sub(",", text).replace(_THIN, " ")
    return _DASH.sub(lambda match: match[0] if match[1] else "-", text)


def _ascii(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    if unicodedata.category(character) == "Sc":
        return "$"
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character)
    return character
