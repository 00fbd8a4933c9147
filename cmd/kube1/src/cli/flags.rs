//! Which flags are in effect, for `/flagz`.

use clap::{ArgAction, ArgMatches, Command};

/// Every flag of the chosen command with its value, wherever that comes from. Secrets are not shown.
pub fn effective(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let Some((name, values)) = matches.subcommand() else { return Vec::new() };
    let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    own.chain(command.get_arguments())
        .filter_map(|arg| {
            let id = arg.get_id().as_str();
            let value = match arg.get_action() {
                ArgAction::SetTrue | ArgAction::SetFalse => values.get_flag(id).to_string(),
                ArgAction::Count => values.get_count(id).to_string(),
                ArgAction::Set | ArgAction::Append => {
                    let texts = values.get_raw(id).into_iter().flatten().map(|text| text.to_string_lossy());
                    texts.collect::<Vec<_>>().join(",")
                }
                _ => return None,
            };
            let long = arg.get_long()?;
            let secret = (long.ends_with("token") || long == "join") && !value.is_empty();
            Some((long.to_owned(), if secret { "[CLASSIFIED]".to_owned() } else { value }))
        })
        .collect()
}
