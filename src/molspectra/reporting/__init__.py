"""Tables, figures and pages made of evaluation results."""
