"""The report as text: tables for a terminal and for Markdown. Knows only the report."""

import figures

WORDS = {"reached": "reached", "missed": "NOT reached", "undecided": "undecided", "unmeasured": "not measured"}


def table(rows):
    """Rows of cells as Markdown, aligned so that it can be read as it is; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def ratio_cell(one):
    if one["ratio"] is None:
        return "-"
    interval = f" [{one['low']:.2f}, {one['high']:.2f}]" if one["low"] is not None else ""
    return f"{one['ratio']:.2f}x{interval}"


def scenario_table(rows, variants):
    names = [name for name in variants if any(name in row["brokers"] for row in rows)]
    pairs = [(one["of"], one["to"]) for one in rows[0]["ratios"]]
    lines = [["", *names, *[f"{of} / {to}" for of, to in pairs], "share of the limit"]]
    for row in rows:
        show = figures.BY_KEY[row["metric"]].show
        cells = [row["what"]]
        for name in names:
            one = row["brokers"].get(name)
            if one is None:
                cells.append("-")
                continue
            spread = f" ({show(one['low'])} to {show(one['high'])})" if one["rounds"] > 1 else ""
            cells.append(f"{show(one['median'])}{spread}{' *' if one['failed'] else ''}")
        cells += [ratio_cell(one) for one in row["ratios"]]
        share = row["share"].get(names[0]) if names else None
        cells.append(f"{share * 100:.0f} %" if share else "")
        lines.append(cells)
    failed = any(one["failed"] for row in rows for one in row["brokers"].values())
    return table(lines) + ("\n\n\\* with runs that failed; ratios and shares are without them" if failed else "")


def limits_table(limits):
    disk, loopback = limits["disk"], limits["loopback"]
    lines = [["the machine's own limits", ""]]
    lines.append(["direct writes of 512 KiB, a flush each 8 MiB", f"{disk['sequential_mib_per_second']:.0f} MiB/s"])
    flushes = [("flush after 8 MiB", "group_flush"), ("flush after 4 KiB", "small_flush")]
    for name, key in [*flushes, ("durable write of 4 KiB", "small_durable_write")]:
        shown = ", ".join(f"{p} {figures.show_us(disk[key][f'{p}_us'])}" for p in ("p50", "p99"))
        lines.append([name, shown])
    shown = f"{loopback['mib_per_second']:.0f} MiB/s, {loopback['receiver_cpu_seconds_per_gib']:.2f} CPU s/GiB"
    lines.append(["loopback received and checksummed on one core", shown])
    return table(lines)


def starts_table(starts):
    lines = [["starting, stopping, idling", "broker", "median", "range"]]
    for one in starts:
        shown = [f"{one[key]:.2f} {one['unit']}" for key in ("median", "low", "high")]
        lines.append([one["what"], one["broker"], shown[0], f"{shown[1]} to {shown[2]}"])
    return table(lines)


def targets_table(targets):
    lines = [["to reach", "", "wanted", "measured", ""]]
    for one in targets:
        measured = ratio_cell(one) if one["unit"] else ratio_cell(one).replace("x", "", 1)
        lines.append([one["work"], one["against"], one["wanted"], measured, WORDS[one["verdict"]]])
    return table(lines)
