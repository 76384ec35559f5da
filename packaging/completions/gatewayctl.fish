# fish completion of gatewayctl(8): gatewayctl itself says what fits.
function __gatewayctl_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	for reply in ($words[1] complete -- $words[2..] "$current" 2>/dev/null)
		switch $reply
			case @file
				__fish_complete_path $current
			case @dir
				__fish_complete_directories $current ''
			case '*'
				echo $reply
		end
	end
end
complete -c gatewayctl -f -a '(__gatewayctl_complete)'
