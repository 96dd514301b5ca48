//! What a form sends, and what stands behind the question mark of a path.

use std::collections::BTreeMap;

use zeroize::Zeroize;

/// Bytes of a form, at most: an invite code has some 250.
pub const MAX_FORM: usize = 8192;

/// Names and values; of those that are there twice the first. Wiped when dropped: one may be an invite code.
#[derive(Default)]
pub struct Form(BTreeMap<String, String>);

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn read(text: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(text) {
            form.0.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        form
    }

    /// A value, without spaces around it; none if it is missing or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Moves a value out.
    #[must_use]
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_counts() {
        let form = Form::read(b"a=%3Cb%3E+c&empty=&a=2&%zz=%ff&csrf");
        assert_eq!((form.get("a"), form.get("empty"), form.get("csrf")), (Some("<b> c"), None, None));
        assert_eq!(format!("{form:?}"), "{\"%zz\", \"a\", \"csrf\", \"empty\"}");
    }
}
