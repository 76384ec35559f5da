/* gatewayctl policy apply | rollback | log | show | export: what is done with a running gateway's store of policies. */
#pragma once

/* argv[0] is the verb.  Each returns an exit code. */
int revision_apply(int argc, char **argv);
int revision_rollback(int argc, char **argv);
int revision_log(int argc, char **argv);
int revision_show(int argc, char **argv);
int revision_export(int argc, char **argv);
