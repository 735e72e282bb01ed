"""Points, vectors, matrices, figures, functions, bases and complex numbers in the spellings of people and programs."""

import pytest

from tests.answers.same import is_right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("(3, 4)", "Q(3, 4)", True),
        ("(3, 4)", "the point (4, 3)", False),
        (r"\binom{7}{3}", "C(7, 3)", True),
        (r"\binom{7}{3}", r"{7 \choose 3}", True),
        (r"\binom{7}{3}", "C(7, 2)", False),
        (r"\begin{pmatrix}5&6\\7&8\end{pmatrix}", "[[5, 6], [7, 8]]", True),
        (r"\begin{pmatrix}5&6\\7&8\end{pmatrix}", "Matrix([[5, 6], [7, 8]])", True),
        (r"\begin{pmatrix}5&6\\7&8\end{pmatrix}", "[[5, 7], [6, 8]]", False),
        (r"\begin{pmatrix}2\\0\\-1\end{pmatrix}", "(2, 0, -1)^T", True),
        (r"\begin{pmatrix}2\\0\\-1\end{pmatrix}", r"2\mathbf{i} - \mathbf{k}", True),
        (r"\begin{pmatrix}2\\0\\-1\end{pmatrix}", r"2\mathbf{i} + \mathbf{k}", False),
        (r"\angle PQR", "angle RQP", True),
        (r"\angle PQR", r"\angle QPR", False),
        (r"\triangle PQR", "triangle PQR", True),
        (r"\triangle PQR", "triangle PQS", False),
        ("CADB", "C, A, D, B", True),
        ("CADB", "A, B, C, D", False),
        ("B, D", "BD", True),
        ("B, D", "D and B", True),
        ("B, D", "BCD", False),
        ("101_2", "0b101", True),
        ("101_2", "101 (base 2)", True),
        ("101_2", "101 base 3", False),
        ("FF_{16}", "0xff", True),
        ("2 - 5i", "2 - 5*j", True),
        ("2 - 5i", "2 + 5*j", False),
        ("-1", "e^{i \\pi}", True),
        (r"\frac{\sqrt{2}}{2} + \frac{\sqrt{2}}{2} i", r"\operatorname{cis} \frac{\pi}{4}", True),
        (r"\frac{\sqrt{2}}{2} + \frac{\sqrt{2}}{2} i", r"\operatorname{cis} \frac{\pi}{3}", False),
        (r"\frac{2}{5}", "Fraction(2, 5)", True),
        (r"\sqrt{3} - 1", "math.sqrt(3) - 1", True),
        (r"\arctan 3", r"\operatorname{arctg} 3", True),
        (r"\frac{1}{2} k x^2", "1/2 k x^2", True),
    ],
)
def test_objects_have_many_spellings(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("g(x) = 3x - 1", "g(t) = 3t - 1", True),
        ("g(x) = 3x - 1", "g(t) = 3x - 1", False),
        ("g(x) = 3x - 1", "h(x) = 3x - 1", False),
        ("g(x) = 3x - 1", "lambda x: 3*x - 1", True),
        ("g(x) = 3x - 1", r"g(x) = 3x - 1, x \in \mathbb{R}", True),
        ("g^{-1}(x) = x + 2", "x + 2", True),
        (r"x = \frac{\pi}{4} + k\pi, k \in \mathbb{Z}", r"\frac{\pi}{4} + n\pi (n \in \mathbb{Z})", True),
        (r"x = \frac{\pi}{4} + k\pi, k \in \mathbb{Z}", r"\frac{\pi}{4} + 2n\pi, n \in \mathbb{Z}", False),
        ("x = 4, x = 9", "x_1 = 9, x_2 = 4", True),
        ("x_1 = 4, x_2 = 9", "x_1 = 9, x_2 = 4", False),
        ("x = 4, x = 9", r"x = 4 \lor x = 9", True),
        (r"\pm 4, \pm 5", "-5, -4, 4, 5", True),
        (r"\pm 4, \pm 5", "4, 5", False),
        ("a = 4, b = 9", r"\begin{cases}a = 4\\b = 9\end{cases}", True),
        ("a = 4, b = 9", r"\begin{cases}a = 9\\b = 4\end{cases}", False),
        ("[2, 5)", "{x | 2 ≤ x < 5}", True),
        (r"(-\infty, 1) \cup (1, \infty)", r"x \in \mathbb{R}, x \ne 1", True),
        (r"(-\infty, \infty)", "x ∈ ℝ", True),
        (r"\emptyset", "{}", True),
    ],
)
def test_solutions_and_functions_have_many_spellings(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (r"\begin{cases}-x & x < 0 \\ x^2 & x \ge 0\end{cases}", True),
        (r"f(x) = \begin{cases}x^2, & \text{if } x \geq 0, \\ -x, & \text{if } x < 0.\end{cases}", True),
        (r"f(x) = \begin{cases}x^2 & x > 0 \\ -x & x \le 0\end{cases}", False),
        (r"f(x) = \begin{cases}-x & x \ge 0 \\ x^2 & x < 0\end{cases}", False),
        ("x^2", False),
    ],
)
def test_a_function_by_cases_has_its_values_and_conditions(answer: str, right: bool):
    assert is_right(r"f(x) = \begin{cases}x^2 & x \ge 0 \\ -x & x < 0\end{cases}", answer) is right
