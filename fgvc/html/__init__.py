"""Values -> a page: templates, style, tables, and charts as SVG.

render: facts and a template -> HTML. formats: numbers and names -> text, also for the terminal and
Markdown. charts: values -> positions in a chart. confusion: a confusion matrix -> an SVG or pixels.
"""
