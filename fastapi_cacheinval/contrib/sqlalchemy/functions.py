"""Functions of databases that do nothing but answer, so that a condition with them may be asked a second time.

A function that is not named here may take a ticket, a lock or a random number: it is called by the app's statement
alone.
"""

from __future__ import annotations

import re

__all__ = ["STEADY", "TIMES", "is_name", "is_safe", "is_safe_text"]

# What comes out the same for the same row, on every database.
STEADY = frozenset(
    """
    abs ascii bit_length ceil ceiling char_length coalesce concat concat_ws datediff day dayofmonth dayofweek dayofyear
    floor greatest hour ifnull instr json_contains json_extract json_unquote json_value least left length locate lower
    lpad ltrim md5 minute mod month nullif octet_length pow power quarter repeat replace reverse right round rpad rtrim
    second sign sqrt substr substring substring_index trim truncate upper year
    """.split()  # noqa: SIM905
)
# What tells the time, and comes out otherwise a moment later.
TIMES = frozenset(
    """
    curdate current_date current_time current_timestamp curtime getdate getutcdate localtime localtimestamp now
    statement_timestamp sysdate transaction_timestamp unix_timestamp utc_date utc_time utc_timestamp
    """.split()  # noqa: SIM905
)
_TEXT = """
    aggregate_strings ascii bit_length btrim chr concat concat_ws decode digest encode format glob group_concat hex
    ifnull iif initcap instr isnull left like locate lpad md5 nvl octet_length overlay position printf quote
    regexp_count regexp_instr regexp_like regexp_match regexp_replace regexp_substr repeat reverse right rpad sha256
    similarity soundex split_part starts_with string_agg strpos strict_word_similarity substring substring_index to_hex
    translate typeof unaccent unhex unicode unistr word_similarity
"""
_NUMBERS = """
    acos asin atan atan2 avg bool_and bool_or ceil ceiling corr cos count cume_dist degrees dense_rank div every exp
    first_value floor greatest lag last_value lead least ln log log10 max median min mod mode nth_value ntile
    percent_rank percentile_cont percentile_disc pi pow power radians rank round row_number sign sin sqrt stddev sum tan
    total trunc truncate var_pop variance width_bucket cast
"""
_TIMES = """
    age curdate current_date current_time current_timestamp curtime date date_add date_bin date_format date_part
    date_sub date_trunc datediff datetime day dayofweek dayofyear extract getdate getutcdate hour julianday
    justify_days justify_hours justify_interval last_day localtime localtimestamp make_date make_interval
    make_timestamp minute month now second statement_timestamp strftime sysdate time timediff timestampdiff timezone
    to_char to_date to_number to_timestamp transaction_timestamp unix_timestamp unixepoch utc_timestamp week year
"""
_COLLECTIONS = """
    all any array array_agg array_append array_cat array_length array_position array_remove array_to_json
    array_to_string array_upper cardinality cube generate_series grouping_sets int4range int8range isempty json_array
    json_array_length json_arrow json_build_array json_build_object json_contains json_each json_extract
    json_extract_path json_extract_path_text json_object json_query json_tree json_type json_unquote json_valid
    json_value jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_exists jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text
    jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_typeof lower_inc numrange phraseto_tsquery
    plainto_tsquery range_merge rollup row row_to_json string_to_array to_json to_jsonb to_tsquery to_tsvector ts_rank
    ts_rank_cd tsrange tstzrange daterange tuple unnest upper_inc websearch_to_tsquery
"""
_SURROUNDINGS = """
    current_database current_role current_schema current_setting current_user database session_user user version
"""
_SAFE = STEADY | frozenset(f"{_TEXT} {_NUMBERS} {_TIMES} {_COLLECTIONS} {_SURROUNDINGS}".split())
# What stands before a bracket in SQL and is no function.
_WORDS = frozenset(
    """
    and as between by case distinct else end except exists filter from having in intersect is join lateral like limit
    not offset on or over partition select some then union using values when where within
    """.split()  # noqa: SIM905
)
_CALLED = re.compile(r'([\w$."`\]]+)\s*\(')
_NAME = re.compile(r"""[\w.`"]+|'[^'\\]*'""")
_DOUBTFUL = re.compile(r"--|/\*|\bnext\s+value\b|\btablesample\b")


def is_safe(name: str, schema: tuple[str, ...] = ()) -> bool:
    """Whether a function, of the database's own schema, does nothing but answer."""
    plain = name.lower()
    # Functions of PostGIS.
    return (not schema or schema == ("pg_catalog",)) and (plain in _SAFE or plain.startswith("st_"))


def is_safe_text(text: str) -> bool:
    """The same for what is written as text: every function that it calls."""
    plain = text.lower()
    return not _DOUBTFUL.search(plain) and all(is_safe(name) or name in _WORDS for name in _CALLED.findall(plain))


def is_name(text: str) -> bool:
    """Whether what is written as text is the name of a column, a number or a short text, and no function."""
    return _NAME.fullmatch(text) is not None and text.lower() not in TIMES
