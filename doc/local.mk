EXTRA_DIST += doc/INTEROP.md doc/AUDIT.md doc/SESSION.md
dist_man_MANS += doc/gatewayd.8 doc/gatewayd.conf.5
