"""Virtual services of keepalived and ipvsadm, read and written as sections of a peers file."""
