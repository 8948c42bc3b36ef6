"""Pieces that Grafana dashboards are made of, as plain dictionaries (dashboard schema 39, Grafana 10.4 and later)."""

import re

WIDTH = 24  # columns of Grafana's grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "text"

# --- PromQL, always within the chosen fleet and routers ---


def of(metric, *matchers):
    """A selector of `metric` among the chosen routers."""
    chosen = ('job=~"$job"', 'instance=~"$instance"', *matchers)
    return f"{metric}{{{', '.join(chosen)}}}"


def rate(metric, *matchers):
    return f"rate({of(metric, *matchers)}[$__rate_interval])"


def _events(labels, metric, matchers):
    """Events in an interval of a counter whose series appear with their first event: increase() does not see the step from nothing to 1."""
    selected = of(metric, *matchers)
    return f"sum by ({labels}) (({selected} unless {selected} offset $__rate_interval) or increase({selected}[$__rate_interval]))"


def per_minute(labels, metric, *matchers):
    return f"{_events(labels, metric, matchers)} * 60000 / $__rate_interval_ms"


def per_second(labels, metric, *matchers):
    return f"{_events(labels, metric, matchers)} * 1000 / $__rate_interval_ms"


def in_range(labels, metric, *matchers):
    """Events in the whole range that the dashboard shows, of such a counter."""
    selected = of(metric, *matchers)
    return f"sum by ({labels}) (({selected} unless {selected} offset $__range) or increase({selected}[$__range]))"


def quantile(share, labels, histogram, *matchers):
    grouped = f"le, {labels}" if labels else "le"
    return f"histogram_quantile({share}, sum by ({grouped}) ({rate(histogram + '_bucket', *matchers)}))"


def target(expression, legend="", *, instant=False, form="time_series"):
    return {"expr": expression, "legendFormat": legend or "__auto", "instant": instant, "range": not instant, "format": form}


# --- how values look ---


def thresholds(*steps):
    """(None, colour) first, then (from, colour)."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def mappings(**words):
    """v0=("down", RED) shows 0 as a red "down"."""
    options = {key[1:]: {"text": text, "color": colour, "index": index} for index, (key, (text, colour)) in enumerate(words.items())}
    return [{"type": "value", "options": options}]


def by_name(pattern, **properties):
    """Properties for the series whose name matches anywhere; between slashes, or Grafana would match the whole name."""
    keys = {"colour": "color", "dash": "custom.lineStyle", "width": "custom.lineWidth", "fill": "custom.fillOpacity", "stack": "custom.stacking",
            "unit": "unit", "hidden": "custom.hidden", "title": "displayName", "links": "links", "cell": "custom.cellOptions",
            "axis": "custom.axisPlacement", "limits": "thresholds", "column": "custom.width", "decimals": "decimals", "mappings": "mappings"}
    listed = []
    for key, value in properties.items():
        if key == "colour":
            value = {"mode": "fixed", "fixedColor": value}
        listed.append({"id": keys[key], "value": value})
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": listed}


# --- panels ---


def _panel(kind, title, description, targets, width, height, unit, options, *, custom=None, steps=None, maps=None, overrides=(), **defaults):
    for index, entry in enumerate(targets):
        entry.update(refId=chr(ord("A") + index), datasource=DATASOURCE)
    field = {"unit": unit, "mappings": maps or [], "thresholds": steps or thresholds((None, GREEN)), "custom": custom or {}, **defaults}
    return {"type": kind, "title": title, "description": description, "datasource": DATASOURCE, "targets": targets,
            "gridPos": {"w": width, "h": height}, "options": options, "fieldConfig": {"defaults": field, "overrides": list(overrides)}}


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "gridPos": {"w": WIDTH, "h": 1}, "panels": []}


def graph(title, description, targets, *, unit="short", width=8, height=8, stacked=False, bars=False, table=False, minimum=0, **more):
    custom = {"drawStyle": "bars" if bars else "line", "lineWidth": 1, "fillOpacity": 60 if bars else 25 if stacked else 5, "showPoints": "never",
              "spanNulls": False, "stacking": {"mode": "normal" if stacked or bars else "none", "group": "A"},
              "thresholdsStyle": {"mode": "dashed" if "steps" in more else "off"}, "axisSoftMin": 0}
    legend = {"showLegend": True, "displayMode": "table" if table else "list", "placement": "bottom", "calcs": ["lastNotNull", "max"] if table else []}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if minimum is not None:
        more["min"] = minimum
    return _panel("timeseries", title, description, targets, width, height, unit, options, custom=custom, **more)


def stat(title, description, targets, *, unit="short", width=3, height=4, names=False, sparkline=False, **more):
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "name" if names else "auto",
               "colorMode": "background", "graphMode": "area" if sparkline else "none", "justifyMode": "auto", "orientation": "auto"}
    more.setdefault("color", {"mode": "thresholds"})
    return _panel("stat", title, description, targets, width, height, unit, options, **more)


def states(title, description, targets, maps, *, width=8, height=8):
    custom = {"lineWidth": 0, "fillOpacity": 80}
    options = {"mergeValues": True, "showValue": "auto", "rowHeight": 0.85, "alignValue": "left",
               "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}, "tooltip": {"mode": "single", "sort": "none"}}
    return _panel("state-timeline", title, description, targets, width, height, "none", options, custom=custom, maps=maps)


def heatmap(title, description, targets, *, width=8, height=8):
    for entry in targets:
        entry.update(format="heatmap", legendFormat="{{le}}")
    options = {"calculate": False, "color": {"mode": "scheme", "scheme": "Blues", "fill": "dark-blue", "exponent": 0.5, "steps": 64, "reverse": False}, "yAxis": {"unit": "s"},
               "cellGap": 1, "tooltip": {"mode": "single", "yHistogram": True}, "legend": {"show": False}, "rowsFrame": {"layout": "le"}}
    return _panel("heatmap", title, description, targets, width, height, "s", options)


def table(title, description, targets, *, columns, width=12, height=8, unit="short", sort=None, **more):
    """`columns`: {label or "Value": heading}, in this order; what is not named is not shown."""
    for entry in targets:
        entry.update(instant=True, range=False, format="table")
    order = list(columns)
    shown = [{"id": "filterFieldsByName", "options": {"include": {"names": order}}},
             {"id": "organize", "options": {"indexByName": {name: index for index, name in enumerate(order)}, "renameByName": dict(columns)}}]
    if len(targets) > 1:
        shown.insert(1, {"id": "merge", "options": {}})
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": True}] if sort else []}
    panel = _panel("table", title, description, targets, width, height, unit, options, custom={"align": "auto", "filterable": True}, **more)
    panel["transformations"] = shown
    return panel


# --- a dashboard ---


def variable(name, label, query, *, several=False, hidden=False):
    made = {"type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": {"query": query, "refId": name},
            "refresh": 2, "sort": 1, "multi": several, "includeAll": several, "hide": 2 if hidden else 0, "regex": "", "options": []}
    if several:
        # Without an allValue "All" is every value that was found: ".*" would count the targets of other jobs as well.
        made.update(current={"text": ["All"], "value": ["$__all"]})
    return made


def datasource_variable():
    return {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1, "hide": 0, "regex": "",
            "multi": False, "includeAll": False, "options": []}


def event_marks(name, colour, expression, title):
    """Marks in every graph where the expression is not 0."""
    return {"name": name, "enable": True, "iconColor": colour, "datasource": DATASOURCE, "expr": expression, "step": "15s", "titleFormat": title,
            "useValueForTime": False, "hide": False}


def dashboard(uid, title, description, variables, panels, annotations=()):
    """Lays panels out from left to right in their order, a new line where one does not fit or a row begins."""
    x = y = tallest = 0
    for number, panel in enumerate(panels, start=1):
        place = panel["gridPos"]
        if x + place["w"] > WIDTH or panel["type"] == "row":
            x, y, tallest = 0, y + tallest, 0
        place.update(x=x, y=y)
        panel["id"] = number
        x, tallest = x + place["w"], max(tallest, place["h"])
    return {
        "uid": uid, "title": title, "description": description, "tags": ["pointsman"], "schemaVersion": 39, "version": 1, "id": None,
        "editable": True, "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "liveNow": False,
        "links": [{"type": "dashboards", "title": "Pointsman", "tags": ["pointsman"], "asDropdown": False, "keepTime": True, "includeVars": True,
                   "icon": "dashboard", "targetBlank": False, "tooltip": "", "url": ""}],
        "templating": {"list": [datasource_variable(), *variables]}, "annotations": {"list": list(annotations)}, "panels": panels}


_LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def queries(board):
    """Every (where, expression, labels that its legend shows) of a dashboard."""
    for panel in board["panels"]:
        for entry in panel.get("targets", ()):
            yield f"{board['uid']}: {panel['title']} {entry['refId']}", entry["expr"], set(_LEGEND.findall(entry["legendFormat"]))
    for mark in board["annotations"]["list"]:
        yield f"{board['uid']}: mark {mark['name']}", mark["expr"], set(_LEGEND.findall(mark["titleFormat"]))


def variable_queries(board):
    """Every (variable, selector, label) of label_values() queries."""
    for entry in board["templating"]["list"]:
        if entry["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", entry["query"]["query"]).groups()
            yield entry["name"], selector, label
