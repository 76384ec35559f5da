# gatewayctl.  All but its main is a library, so that tests link what people run.
noinst_LIBRARIES += admin/libadmin.a
admin_libadmin_a_SOURCES = \
	admin/admin.h admin/fail.c \
	admin/client.c admin/client.h \
	admin/format.c admin/format.h \
	admin/progress.c admin/progress.h \
	admin/times.c admin/times.h \
	admin/rows.c admin/rows.h \
	admin/status.c \
	admin/options.c admin/options.h \
	admin/reload.c \
	admin/auth.c \
	admin/running.c admin/top.c \
	admin/session.c admin/session.h \
	admin/audit_ask.c admin/audit_ask.h \
	admin/audit_verify.c admin/audit_integrity.c admin/audit_proofs.c admin/audit_proofs.h admin/audit_retention.c \
	admin/html.c admin/html.h \
	admin/report.h admin/report_page.c admin/report_chart.c admin/report_style.c
admin_libadmin_a_CPPFLAGS = $(AM_CPPFLAGS) $(NCURSES_CFLAGS) $(JANSSON_CFLAGS) $(SMARTCOLS_CFLAGS) $(SODIUM_CFLAGS)

bin_PROGRAMS = admin/gatewayctl
admin_gatewayctl_SOURCES = admin/gatewayctl.c admin/complete.c admin/complete.h admin/policy.c admin/policy.h \
	admin/policy_load.c admin/policy_load.h admin/revision.c admin/revision.h admin/approval.c \
	admin/change.c admin/change.h admin/policy_edit.c admin/policy_edit.h admin/rule.c admin/rule.h admin/rule_list.c admin/set.c \
	admin/table.c admin/table.h admin/window.c
admin_gatewayctl_SOURCES += admin/audit.c admin/audit.h admin/audit_report.c admin/audit_why.c admin/audit_sql.c \
	admin/audit_export.c admin/audit_export.h admin/sign_key.c admin/sign_key.h
admin_gatewayctl_SOURCES += admin/past.c admin/past.h admin/history.c admin/history.h admin/impact.c admin/impact.h \
	admin/suggest.c admin/suggest.h admin/policy_help.c admin/policy_help.h
admin_gatewayctl_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(SMARTCOLS_CFLAGS) $(SODIUM_CFLAGS)
admin_gatewayctl_LDADD = admin/libadmin.a schema/libschema.a policy/libpolicy.a common/libcommon.a \
	$(SCHEMA_LIBS) $(POLICY_LIBS) $(SMARTCOLS_LIBS) $(NCURSES_LIBS) $(JANSSON_LIBS) -lm
dist_man_MANS += doc/gatewayctl.8

# bash looks a completion up by the name of the command.
bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = packaging/completions/gatewayctl
zshcompletiondir = $(datadir)/zsh/vendor-completions
dist_zshcompletion_DATA = packaging/completions/_gatewayctl
fishcompletiondir = $(datadir)/fish/vendor_completions.d
dist_fishcompletion_DATA = packaging/completions/gatewayctl.fish
