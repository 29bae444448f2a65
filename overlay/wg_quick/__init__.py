"""The files of wg-quick(8), read and written: what a peers file becomes for plain WireGuard,
and the other way round.
"""
