//! As much of PromQL as it takes to say which series a query asks for, by which of their labels.

/// A metric in a query.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
    /// What the aggregations around it keep.
    pub grouped: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

/// The metrics of `query`, and the labels by which both sides of its operators are matched.
pub fn selectors(query: &str) -> (Vec<Selector>, Vec<String>) {
    let mut reader = Reader {
        tokens: tokens(query),
        at: 0,
    };
    reader.read()
}

const JOINS: [&str; 4] = ["on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn read(&mut self) -> (Vec<Selector>, Vec<String>) {
        let (mut found, mut joined) = (Vec::new(), Vec::new());
        let mut scopes: Vec<Vec<String>> = Vec::new();
        let mut kept = Vec::new();
        while let Some(token) = self.next() {
            match token {
                Token::Sign(sign) if sign == "(" => scopes.push(std::mem::take(&mut kept)),
                Token::Sign(sign) if sign == ")" => drop(scopes.pop()),
                Token::Word(word) if word == "by" => kept = self.labels(),
                Token::Word(word) if JOINS.contains(&word.as_str()) => joined.extend(self.labels()),
                Token::Word(word) if OPERATORS.contains(&word.as_str()) || self.is_call() => {}
                Token::Word(metric) => found.push(Selector {
                    metric,
                    matchers: self.matchers(),
                    grouped: scopes.concat(),
                }),
                Token::Text(_) | Token::Sign(_) => {}
            }
        }
        (found, joined)
    }

    fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn is_next(&self, sign: &str) -> bool {
        self.tokens.get(self.at) == Some(&Token::Sign(sign.to_owned()))
    }

    /// Whether the word just read is a function or an aggregation.
    fn is_call(&self) -> bool {
        let by = Token::Word("by".to_owned());
        self.is_next("(") || self.tokens.get(self.at) == Some(&by)
    }

    /// A list in parentheses, if there is one.
    fn labels(&mut self) -> Vec<String> {
        let mut labels = Vec::new();
        if self.is_next("(") {
            while let Some(token) = self.next() {
                match token {
                    Token::Word(label) => labels.push(label),
                    Token::Sign(sign) if sign == ")" => break,
                    Token::Text(_) | Token::Sign(_) => {}
                }
            }
        }
        labels
    }

    fn matchers(&mut self) -> Vec<(String, String, String)> {
        let mut matchers = Vec::new();
        if !self.is_next("{") {
            return matchers;
        }
        self.at += 1;
        loop {
            match self.next() {
                Some(Token::Word(label)) => match (self.next(), self.next()) {
                    (Some(Token::Sign(operator)), Some(Token::Text(value))) => {
                        matchers.push((label, operator, value));
                    }
                    other => panic!("{label} is not compared with anything: {other:?}"),
                },
                Some(Token::Sign(sign)) if sign == "," => {}
                Some(Token::Sign(sign)) if sign == "}" => return matchers,
                other => panic!("no matcher: {other:?}"),
            }
        }
    }
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let length = length_of(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            tokens.push(Token::Word(rest[..length].to_owned()));
            length
        } else if first.is_ascii_digit() {
            // With a unit, it would otherwise be a word.
            length_of(rest, |c| c.is_ascii_alphanumeric() || c == '.')
        } else if first == '[' {
            1 + rest.find(']').expect("a range ends")
        } else if first == '"' {
            let length = rest[1..].find('"').expect("a text ends");
            tokens.push(Token::Text(rest[1..=length].to_owned()));
            length + 2
        } else {
            let length = if rest.starts_with("=~") || rest.starts_with("!") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token::Sign(rest[..length].to_owned()));
            length
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

fn length_of(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

#[test]
fn a_query_is_taken_apart() {
    let query = r#"histogram_quantile(0.99, sum by (pool, le) (rate(wait_bucket{job="x", pool=~"a|b"}[5m]))) > 1h
        and on (class) group_left 14.4 * holdfast:budget{slo!="y"}
        unless max(last) == 0"#;

    let (found, joined) = selectors(query);

    let names: Vec<_> = found.iter().map(|each| each.metric.as_str()).collect();
    assert_eq!(names, ["wait_bucket", "holdfast:budget", "last"]);
    assert_eq!(found[0].grouped, ["pool", "le"]);
    let pool = ("pool".to_owned(), "=~".to_owned(), "a|b".to_owned());
    assert_eq!(found[0].matchers[1], pool);
    assert!(found[1].grouped.is_empty() && found[2].grouped.is_empty());
    assert_eq!(joined, ["class"]);
}
