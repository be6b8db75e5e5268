"""Summaries of a queue -> HTML. No store, no executor, no I/O, no clock.

The text that users gave reaches the output only through :func:`escaped`. Nothing is loaded from elsewhere and nothing
is executed; what folds is ``<details>``. Without its style sheet, as in a notebook that is not trusted, it is still a
list that can be read.
"""

from __future__ import annotations

import html
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from paraschut.job import joined_name
from paraschut.look.render import nothing_shown
from paraschut.look.summary import (
    BatchRow,
    StateRow,
    Totals,
    bar_counts,
    bar_order,
    group_missing,
    percent_complete,
    piece_of,
    segments_of,
    visible,
)
from paraschut.look.texts import clean, duration, percent_of

#: The states that have a colour of their own.
_COLOURED = frozenset({"collected", "complete", "run", "spawn", "submit", "missing", "held", "init"})
_FINISHED = frozenset({"complete", "collected"})

#: From so many batches on, those that are done fold into one line.
_MANY_BATCHES = 20
#: Batches that are shown with all that is known of them, and of these, unfolded.
_MOST_BATCHES = 40
_MOST_UNFOLDED = 12
#: Batches that a fold lists with a line for each.
_MOST_LINES = 2000
#: Ranges of indices that are shown, and that a fold shows.
_FEW_RANGES = 16
_MOST_RANGES = 1000
_FEW_JOBS = 8
_MOST_JOBS = 200
_LONGEST_NAME = 120
_LONGEST_REASON = 400
_LONGEST_VALUE = 600

_LIGHT = (
    "--psu-ink:#1f2328;--psu-soft:#59636e;--psu-card:#fff;--psu-line:#d1d9e0;--psu-lane:#eaeef2;--psu-bad:#b3202c;"
    "--psu-complete:#2f8f4e;--psu-collected:#196c3a;--psu-run:#0b6bd3;--psu-spawn:#8250df;--psu-submit:#5b8fc7;"
    "--psu-missing:#d1242f;--psu-held:#a8680a;--psu-init:#848d97;--psu-other:#b5488b"
)
_DARK = (
    "--psu-ink:#e6edf3;--psu-soft:#9da7b3;--psu-card:#14181e;--psu-line:#39414b;--psu-lane:#262c34;--psu-bad:#ff8f88;"
    "--psu-complete:#4cb36b;--psu-collected:#2b8a4b;--psu-run:#58a6ff;--psu-spawn:#b48afc;--psu-submit:#5580b0;"
    "--psu-missing:#ff6a62;--psu-held:#d7a03a;--psu-init:#768390;--psu-other:#e27cb8"
)
# Jupyter and VS Code say by an attribute which theme holds; where none is said, the browser's does.
_STYLE = f"""
.psu{{{_LIGHT};color-scheme:light;box-sizing:border-box;max-width:1080px;padding:2px 14px 8px;border:1px solid var(--psu-line);
border-radius:8px;background:var(--psu-card);color:var(--psu-ink);font:13px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums;text-align:left}}
@media (prefers-color-scheme:dark){{.psu{{{_DARK};color-scheme:dark}}}}
[data-jp-theme-light=true] .psu,.vscode-light .psu{{{_LIGHT};color-scheme:light}}
[data-jp-theme-light=false] .psu,.vscode-dark .psu,html[theme=dark] .psu{{{_DARK};color-scheme:dark}}
.psu details{{margin:0;padding:0;border:0}}
.psu>details{{border-bottom:1px solid var(--psu-line)}}
.psu>details:last-child{{border:0}}
.psu summary{{cursor:pointer;list-style:none}}
.psu summary::-webkit-details-marker{{display:none}}
.psu summary:focus-visible{{outline:2px solid var(--psu-run);outline-offset:1px;border-radius:4px}}
.psu summary::before{{content:"";display:inline-block;flex:none;width:0;height:0;margin-right:4px;border:4px solid transparent;
border-left:5px solid var(--psu-soft);transform-origin:2px 50%;transition:transform .12s}}
.psu details[open]>summary::before{{transform:rotate(90deg)}}
.psu .psu-row{{display:flex;flex-wrap:wrap;align-items:center;gap:4px 12px;padding:8px 0}}
.psu .psu-name{{flex:1 1 230px;min-width:0;overflow-wrap:anywhere}}
.psu .psu-name b{{font-weight:600}}
.psu small,.psu .psu-soft{{color:var(--psu-soft);font-size:12px}}
.psu .psu-id{{display:block;font:11.5px/1.4 ui-monospace,Menlo,Consolas,monospace;color:var(--psu-soft)}}
.psu .psu-bar{{display:flex;flex:1 1 240px;height:14px;min-width:150px;overflow:hidden;border-radius:4px;background:var(--psu-lane);gap:1px}}
.psu .psu-bar i{{display:block;min-width:3px;height:100%;background:var(--c)}}
.psu .psu-bar i:hover{{filter:brightness(1.15)}}
.psu .psu-part{{flex:0 0 38px;text-align:right;font-weight:600}}
.psu .psu-time{{flex:0 0 158px;color:var(--psu-soft);font-size:12px;line-height:1.35}}
.psu .psu-time b{{display:block;color:var(--psu-ink);font-weight:500}}
.psu .psu-body{{padding:0 0 10px 17px;overflow-x:auto}}
.psu table.psu-t{{width:auto;margin:0;border:0;border-collapse:collapse;background:none;color:inherit;font-size:13px;table-layout:auto}}
.psu table.psu-t tr,.psu table.psu-t tr:nth-child(n):hover{{background:none}}
.psu table.psu-t td,.psu table.psu-t th{{padding:1px 14px 1px 0;border:0;background:none;text-align:left;vertical-align:baseline;
font-weight:400;white-space:normal;max-width:none}}
.psu table.psu-t th:not(.psu-soft){{min-width:84px}}
.psu table.psu-t td.psu-n{{min-width:30px;text-align:right}}
.psu .psu-x{{font:12px/1.6 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}}
.psu .psu-x b{{font-weight:700;color:var(--psu-run)}}
.psu .psu-x summary::before{{margin-right:6px;vertical-align:1px}}
.psu .psu-dot{{display:inline-block;width:9px;height:9px;margin-right:7px;border-radius:3px;background:var(--c)}}
.psu .psu-bad{{color:var(--psu-bad)}}
.psu .psu-lane{{display:inline-block;width:110px;height:8px;border-radius:3px;overflow:hidden;background:var(--psu-lane);vertical-align:1px}}
.psu .psu-lane i{{display:block;height:100%;background:var(--psu-run)}}
.psu .psu-foot{{display:flex;flex-wrap:wrap;gap:2px 16px;padding-top:8px}}
.psu .psu-foot b{{font-weight:600}}
.psu .psu-note{{padding-top:6px}}
{"".join(f".psu .psu-{state}{{--c:var(--psu-{state})}}" for state in sorted(_COLOURED | {"other"}))}
@media print{{.psu{{{_LIGHT};color-scheme:light;border-color:#999;print-color-adjust:exact;-webkit-print-color-adjust:exact}}
.psu details{{break-inside:avoid}}}}
"""


def escaped(text: str, most: int = _LONGEST_NAME) -> str:
    """Return a user's string as one line of HTML text, without control characters, and cut to a length."""
    text = clean(text)
    return html.escape(text if len(text) <= most else text[: most - 1].rstrip() + "…")


def queue_html(
    batches: Sequence[BatchRow],
    totals: Totals,
    *,
    display: Collection[str] | None = None,
    filtered: bool = False,
    now: float | None = None,
) -> str:
    """Return the whole queue as one HTML element.

    Parameters
    ----------
    display : collection of str, optional
        The states that are shown; batches with none of them are left out. The totals stay.
    filtered : bool
        Whether the batches were chosen by a Filter: an empty queue is then explained by it.
    now : float, optional
        When it was looked at, in epoch seconds; said at the end.
    """
    wanted = {display} if isinstance(display, str) else display
    shown = [(batch, part) for batch in batches if (part := visible(batch, wanted)) is not None]
    parts = [f"<style>{_STYLE}</style>"]
    if not shown:
        sentence = nothing_shown(hidden=bool(batches or totals.jobs), display=wanted, filtered=filtered)
        parts.append(f'<div class="psu-row">{html.escape(sentence)}</div>')
    done = [pair for pair in shown if _is_done(pair[0])] if len(shown) > _MANY_BATCHES else []
    rest = [pair for pair in shown if not (done and _is_done(pair[0]))]
    parts.append(_folded(done, "complete"))
    unfolded = 0
    for batch, part in rest[:_MOST_BATCHES]:
        opened = not _is_done(batch) and unfolded < _MOST_UNFOLDED
        unfolded += opened
        parts.append(_batch(batch, part, opened=opened))
    parts.append(_folded(rest[_MOST_BATCHES:], "more"))
    parts.append(_foot(totals, now))
    return f'<div class="psu">{"".join(parts)}</div>'


def job_html(job: Mapping[str, object]) -> str:
    """Return the fields of a job as one HTML element, which unfolds.

    Examples
    --------
    >>> "<td class='psu-x'>&lt;b&gt;</td>" in job_html({"BatchID": 1, "JobIndex": 7, "note": "<b>"})
    True
    """
    state = str(job.get("state") or "")
    rows = "".join(
        f"<tr><th>{escaped(field)}</th><td class='psu-x'>{escaped(_value(job[field]), _LONGEST_VALUE)}</td></tr>"
        for field in job
    )
    name = escaped(joined_name(job.get("name")))
    where = escaped(f"{job.get('BatchID')}:{job.get('JobIndex')}")
    return (
        f'<div class="psu"><style>{_STYLE}</style><details><summary class="psu-row"><span class="psu-name">'
        f'<span class="psu-dot psu-{_class(state)}"></span><b>{where}</b> '
        f"{name} <small>{escaped(state)}, {len(job)} fields</small></span></summary>"
        f'<div class="psu-body"><table class="psu-t">{rows}</table></div></details></div>'
    )


def table_html(title: str, tables: Sequence[tuple[str, Sequence[Mapping[str, object]], str]]) -> str:
    """Return tables under a title as one HTML element.

    Parameters
    ----------
    tables : sequence of (name, rows, nothing)
        The rows have the columns of the first one; ``nothing`` stands where there are none.
    """
    parts = [f'<div class="psu"><style>{_STYLE}</style><div class="psu-row"><b>{escaped(title)}</b></div>']
    for name, rows, nothing in tables:
        columns = list(rows[0]) if rows else []
        head = "".join(f"<th class='psu-soft'>{escaped(column)}</th>" for column in columns)
        lines = "".join(
            f"<tr>{''.join(f'<td>{_cell(row.get(column))}</td>' for column in columns)}</tr>" for row in rows
        )
        shown = f"<table class='psu-t'><tr>{head}</tr>{lines}</table>" if rows else escaped(nothing)
        label = f"<span class='psu-soft'>{escaped(name)}</span><br>" if name else ""
        parts.append(f"<div class='psu-body'>{label}{shown}</div>")
    return f"{''.join(parts)}</div>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return escaped(str(round(value, 3) if isinstance(value, float) else value), _LONGEST_REASON)


def _value(value: object) -> str:
    # The repr of a large array or text would be cut anyway.
    return value if isinstance(value, str) else repr(value)


def _is_done(batch: BatchRow) -> bool:
    return not batch.missing and all(row.state in _FINISHED for row in batch.states)


def _batch(batch: BatchRow, part: BatchRow, *, opened: bool) -> str:
    body = "".join((_states(part), _missing(part), _progress(part)))
    return (
        f"<details{' open' if opened else ''}><summary class='psu-row'>{_head(batch)}</summary>"
        f"<div class='psu-body'>{body}</div></details>"
    )


def _head(batch: BatchRow) -> str:
    counts = bar_counts(batch)
    kind = f" <small>({escaped(batch.data_type)})</small>" if batch.data_type.strip() else ""
    times = f"<b>{duration(batch.elapsed)}</b>" if batch.elapsed is not None else ""
    if batch.left is not None:
        times += f"about {duration(batch.left)} left"
    return (
        f"<span class='psu-name'><b>{escaped(batch.name) or 'no name'}</b>{kind} "
        f"<span class='psu-id'>{batch.batch_id}</span></span> "
        f"{_bar(counts)} <span class='psu-part'>{percent_complete(counts)}%</span> "
        f"<span class='psu-time'>{times}</span>"
    )


def _bar(counts: dict[str, int]) -> str:
    total = max(1, sum(counts.values()))
    present = [(state, counts[state]) for state in bar_order(counts) if counts[state] > 0]
    cells = "".join(
        f"<i class='psu-{_class(state)}' style='width:{100 * many / total:.3g}%' title='{many:,} {escaped(state)}'></i>"
        for state, many in present
    )
    told = ", ".join(f"{many:,} {escaped(state)}" for state, many in present)
    return f"<span class='psu-bar' role='img' aria-label='{told}'>{cells}</span>"


def _class(state: str) -> str:
    return state if state in _COLOURED else "other"


def _states(batch: BatchRow) -> str:
    rows = "".join(
        f"<tr><th><span class='psu-dot psu-{_class(row.state)}'></span>{escaped(row.state) or '?'}</th>"
        f"<td class='psu-n'>{row.count:,}</td><td class='psu-x'>{_indices(row)}</td></tr>"
        for row in batch.states
    )
    return f"<table class='psu-t'>{rows}</table>" if rows else ""


def _indices(row: StateRow) -> str:
    return _ranges(segments_of(row.spans, row.online, row.copies))


def _ranges(segments: Sequence[tuple[int, int, int]]) -> str:
    """Return ranges of indices, those online in bold; many of them fold."""
    if len(segments) <= _FEW_RANGES:
        return ", ".join(map(_piece, segments))
    few, more = segments[: _FEW_RANGES - 4], segments[_FEW_RANGES - 4 : _MOST_RANGES]
    hidden = len(segments) - len(few) - len(more)
    tail = f" … and {hidden:,} ranges more" if hidden else ""
    return (
        f"{', '.join(map(_piece, few))}, <details><summary>{len(segments) - len(few):,} ranges more</summary>"
        f"{', '.join(map(_piece, more))}{tail}</details>"
    )


def _piece(segment: tuple[int, int, int]) -> str:
    return f"<b>{piece_of(segment)}</b>" if segment[2] else piece_of(segment)


def _missing(batch: BatchRow) -> str:
    groups = group_missing(batch.missing)
    rows = []
    for group in groups:
        first, last = group.attempts
        tries = f"attempt{'s' if first < last else ''} {piece_of((first, last, 0))}" if last > 1 else ""
        rows.append(
            f"<tr><th class='psu-bad'>{escaped(group.reason, _LONGEST_REASON) or 'no reason known'}</th>"
            f"<td class='psu-n'>{group.count:,}</td><td class='psu-x'>{_ranges(segments_of(group.spans, (), ()))}"
            f"{f' <small>({tries})</small>' if tries else ''}</td></tr>"
        )
    return _table("missing", "missing, with the reason", rows)


def _progress(batch: BatchRow) -> str:
    rows = [
        f"<tr><td class='psu-x psu-n'>{index}</td><td class='psu-n'>{percent_of(fraction)}%</td>"
        f"<td><span class='psu-lane'><i style='width:{percent_of(fraction)}%'></i></span></td>"
        f"<td class='psu-soft'>{escaped(message)}</td></tr>"
        for index, fraction, message in batch.progress[:_MOST_JOBS]
    ]
    hidden = len(batch.progress) - len(rows)
    if hidden:
        rows.append(f"<tr><td></td><td></td><td></td><td>and {hidden:,} more jobs</td></tr>")
    return _table("run", "progress", rows)


def _table(state: str, title: str, rows: Sequence[str]) -> str:
    """Return rows under a title; more than a few of them fold."""
    if not rows:
        return ""
    head = f"<div style='margin-top:6px'><span class='psu-dot psu-{state}'></span>{title}</div>"
    few, more = rows[:_FEW_JOBS], rows[_FEW_JOBS:]
    text = f"{head}<table class='psu-t' style='margin-left:16px'>{''.join(few)}</table>"
    if more:
        text += (
            f"<details style='margin-left:16px'><summary>{len(more):,} more</summary>"
            f"<table class='psu-t'>{''.join(more)}</table></details>"
        )
    return text


def _folded(pairs: Sequence[tuple[BatchRow, BatchRow]], word: str) -> str:
    """Return many batches in one fold, with a line for each."""
    if not pairs:
        return ""
    lines = "".join(f"<div class='psu-row'>{_head(batch)}</div>" for batch, _ in pairs[:_MOST_LINES])
    hidden = len(pairs) - _MOST_LINES
    if hidden > 0:
        lines += f"<div class='psu-row'>and {hidden:,} more</div>"
    what = "more batches" if word == "more" else f"batches are {word}"
    return (
        f"<details><summary class='psu-row'><span>{len(pairs):,} {what}</span></summary>"
        f"<div class='psu-body'>{lines}</div></details>"
    )


def _foot(totals: Totals, now: float | None) -> str:
    queued = "unknown" if totals.queued is None else f"{totals.queued:,}"
    lost = f"<b class='psu-bad'>{totals.missing:,}</b>" if totals.missing else "<b>0</b>"
    parts = [
        f"on queue: <b>{queued}</b>",
        f"online: <b>{totals.online:,}</b>",
        f"missing: {lost}",
        f"complete: <b>{totals.complete}/{totals.jobs}</b>",
        *(
            f"yours on {escaped(name)}: <b>{'unknown' if count is None else f'{count:,}'}</b>"
            for name, count in totals.schedulers
        ),
    ]
    if now is not None:
        parts.append(
            f"<small>{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC; * has a living process</small>"
        )
    foot = f"<div class='psu-foot'>{' '.join(f'<span>{part}</span>' for part in parts)}</div>"
    return foot + "".join(_notes(totals.notes))


def _notes(notes: Iterable[str]) -> Iterable[str]:
    for note in notes:
        yield f"<div class='psu-note psu-soft'>{escaped(note, _LONGEST_REASON)}</div>"
