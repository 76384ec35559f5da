# Turns numbered SQL files into C strings: awk -f embed.awk audit/0001_init.sql ... policy/0001_init.sql > migrations.c
# A file's folder is its store; files of one store follow each other in order.
function finish()
{
	if (file != "")
		print ","
}
FNR == 1 {
	finish()
	file = FILENAME
	n = split(FILENAME, part, "/")
	if (part[n - 1] != store) {
		if (store != "")
			print "\tNULL,\n};"
		store = part[n - 1]
		if (first++ == 0)
			print "/* Made by schema/embed.awk. */\n#include \"schema/migrations.h\"\n\n#include <stddef.h>\n"
		print "const char *const schema_" store "_migrations[] = {"
	}
}
{
	gsub(/\\/, "\\\\")
	gsub(/"/, "\\\"")
	printf "\t\"%s\\n\"\n", $0
}
END {
	finish()
	print "\tNULL,\n};"
}
