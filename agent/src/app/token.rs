//! Where this process finds its token: the one place that was named, or else
//! the systemd credential.

use super::{Context, Failure};
use crate::cli::JoinOptions;
use crate::config::Origin;
use crate::join::TokenSource as _;
use crate::output;
use crate::token_source::{GivenToken, Place};
use zeroize::Zeroizing;

/// The token, not yet read. A flag overrules the environment and the file; two
/// flags contradict each other.
pub(super) fn of(with: &Context<'_>, options: &JoinOptions) -> Result<GivenToken, Failure> {
    let file = &with.settings.token_file;
    let named = matches!(file.origin, Origin::Flag(_));
    let places = [
        options.token.as_ref().map(|text| Place::Argument(Zeroizing::new(text.clone()))),
        options.token_fd.map(Place::Descriptor),
        file.value.clone().filter(|_| named).map(Place::named),
    ];
    let mut places = places.into_iter().flatten();
    let place = match (places.next(), places.next()) {
        (Some(_), Some(_)) => return Err(Failure::TokenTwice),
        (Some(place), None) => place,
        (None, _) => match (&file.value, &options.credentials_directory) {
            (Some(path), _) => Place::named(path.clone()),
            (None, Some(directory)) => Place::Credential(directory.clone()),
            (None, None) => Place::Nowhere,
        },
    };
    let token = GivenToken::at(place);
    tell_of(&token);
    Ok(token)
}

fn tell_of(token: &GivenToken) {
    if let Some(warning) = token.warning() {
        output::tell(&output::warning(&warning));
    }
}

/// Says so if the token file that the configuration names holds a token without
/// a pin, and no pin is given beside it. The file stays as it is.
pub(super) fn check_pin(with: &Context<'_>) {
    let Some(path) = with.settings.token_file.value.clone() else { return };
    let (Place::File(path), true) = (Place::named(path), with.settings.ca_pins.value.is_empty()) else {
        return;
    };
    if GivenToken::at(Place::File(path)).token().is_ok_and(|token| token.pin.is_none()) {
        output::tell(&output::note(output::UNPINNED));
    }
}
