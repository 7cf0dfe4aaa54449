"""The part of `bloodedge benchmark --ssh` that runs on the device; standard library only.

    python3 -m agent runtime|measure|stop|fetch|profile|remove [JSON]

It lies in the unpacked bundle, where that is the current folder, and answers in lines of JSON on
stdout: `{"say": line}` for people, `{"error": what, "fix": how}`, or `{"done": ...}`. Needs Python
3.8 or newer.
"""
