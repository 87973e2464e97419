//! Completions and the manual page, from the same source as `--help`.

use std::io;

use clap_complete::Shell;

/// The completions of a shell for this command line.
#[must_use]
pub fn completion(shell: Shell, mut command: clap::Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The manual page of this command line, in roff: one page for all commands.
///
/// # Errors
/// None that writing to memory can have.
pub fn man(mut command: clap::Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let main = clap_mangen::Man::new(command.clone());
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    main.render_synopsis_section(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    for part in leaves(&command) {
        let name = part.get_bin_name().unwrap_or_else(|| part.get_name()).to_ascii_uppercase();
        page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
        sections(part, &mut page)?;
    }
    main.render_extra_section(&mut page)?;
    main.render_version_section(&mut page)?;
    Ok(page)
}

/// The commands that do something, as they stand in the help.
fn leaves(command: &clap::Command) -> Vec<clap::Command> {
    let visible = command.get_subcommands().filter(|part| !part.is_hide_set() && part.get_name() != "help");
    visible.flat_map(|part| if part.has_subcommands() { leaves(part) } else { vec![part.clone()] }).collect()
}

/// A command's description, synopsis and own flags: the flags that every command
/// takes are told once.
fn sections(command: clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let globals: Vec<clap::Id> =
        command.get_arguments().filter(|a| a.is_global_set()).map(|a| a.get_id().clone()).collect();
    let own = globals.into_iter().fold(command, |command, id| command.mut_arg(id, |a| a.hide(true)));
    let man = clap_mangen::Man::new(own);
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_options_section(&mut text)?;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b".SH ") {
            Some(b"DESCRIPTION\n") => {}
            Some(heading) => {
                page.extend_from_slice(b".SS ");
                page.extend_from_slice(heading);
            }
            None => page.extend_from_slice(line),
        }
    }
    Ok(())
}
